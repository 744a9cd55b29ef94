"""The admin API's part for the efficiency table."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Query

from server.efficiency import Efficiency, Over
from server.errors import BadRequestError

__all__ = ["add_efficiency"]


def add_efficiency(app: FastAPI, efficiency: Efficiency) -> None:
    """Add what answers `/api/efficiency`."""

    @app.get("/api/efficiency", summary="The six EfficientLLM metrics and their companions, with ranks")
    async def table(
        by: Annotated[str, Query(description="Labels, comma-separated: engine, model, variant, …")] = "variant",
        over: Annotated[
            Over, Query(description="`window`: the last efficiency.window_s; or since the `start`.")
        ] = "window",
    ) -> dict[str, Any]:
        try:
            # Rows of many configurations take milliseconds: not on the loop that meters and takes records.
            return await asyncio.to_thread(efficiency.table, by.split(","), over)
        except ValueError as exc:
            raise BadRequestError(f"`by` names an unknown label: {exc}.", param="by") from exc
