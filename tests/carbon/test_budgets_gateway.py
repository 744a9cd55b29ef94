"""Budgets as a client of the gateway meets them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import openai
import pytest

from server.clock import SystemClock
from server.errors import BudgetSpentError
from server.gateway.budgets import TenantBudgets
from server.units import Seconds
from server.wire import Budgets, BudgetState, KeyGrant, Outcome
from tests.fakes.clock import FakeClock
from tests.fakes.scripted_engine import DONE, messages_stream, role, stream, token, usage, whole
from tests.gateway.house import ANSWER, MESSAGES, House, open_house, problem, until

pytestmark = pytest.mark.anyio

SOFT = "80 % of 1000 J a day"
HARD = "1000 J a day"
HEADER = "x-wattgate-budget"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The loop that workers run on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """A worker with a key of `acme` and one of `other`."""
    async with open_house() as one:
        await one.know()
        assert one.control.snapshot is not None
        keys = {
            hashlib.sha256(tenant.encode()).hexdigest(): KeyGrant(id=tenant, tenant=tenant, requests_per_minute=100)
            for tenant in ("acme", "other")
        }
        one.control.push(msgspec.structs.replace(one.control.snapshot, version=1000, keys=keys))
        await until(lambda: getattr(one.worker.router.snapshot, "version", None) == 1000)
        one.engine.then(whole(ANSWER))
        yield one


def state(*, spent: bool, left: float = 3600.0) -> BudgetState:
    reason = HARD if spent else SOFT
    return BudgetState(spent=spent, reason=reason, ends_at=SystemClock().monotonic() + left)


async def tell(house: House, **tenants: BudgetState) -> None:
    house.control.push(Budgets(tenants=tenants))
    await until(lambda: set(house.worker.budgets.over) == set(tenants))


async def ask(house: House, tenant: str = "acme", path: str = "chat/completions", **changes: Any) -> httpx.Response:
    body = {"model": "demo:bf16", "messages": MESSAGES, **changes}
    return await house.client.post(f"/v1/{path}", json=body, headers={"authorization": f"Bearer {tenant}"})


async def test_answers_say_nothing_while_nobody_is_over(house: House) -> None:
    assert HEADER not in (await ask(house)).headers


async def test_soft_bound_stands_on_a_whole_answer_and_only_on_that_tenants(house: House) -> None:
    await tell(house, acme=state(spent=False))
    answer = await ask(house)
    assert (answer.status_code, answer.headers[HEADER]) == (200, SOFT)
    assert HEADER not in (await ask(house, "other")).headers


async def test_soft_bound_stands_on_a_streamed_answer_and_on_an_error(house: House) -> None:
    await tell(house, acme=state(spent=False))
    house.engine.then(stream(role(), token("Hi"), usage(3, 1), DONE))
    answer = await ask(house, stream=True)
    assert (answer.status_code, answer.headers[HEADER]) == (200, SOFT)
    assert answer.text.endswith("data: [DONE]\n\n")
    assert (await ask(house, model="demo:bf16", path="embeddings", input="x")).headers[HEADER] == SOFT


async def test_soft_bound_stands_on_a_stream_of_messages(house: House) -> None:
    await tell(house, acme=state(spent=False))
    house.engine.then(stream(*messages_stream("Hi")))
    answer = await ask(house, path="messages", stream=True, max_tokens=8)
    assert (answer.status_code, answer.headers[HEADER]) == (200, SOFT)


@pytest.mark.parametrize("streamed", [False, True])
async def test_hard_bound_is_a_429_with_the_reason_and_the_wait_in_openais_form(house: House, streamed: bool) -> None:
    await tell(house, acme=state(spent=True))
    answer = await ask(house, stream=streamed)
    assert answer.status_code == 429
    assert 3590 <= int(answer.headers["retry-after"]) <= 3600
    assert answer.headers["x-should-retry"] == "false"
    said = problem(answer)
    assert (said["type"], said["code"]) == ("insufficient_quota", "insufficient_quota")
    assert HARD in said["message"]
    assert "`acme`" in said["message"]
    assert (await ask(house, "other")).status_code == 200
    assert len(house.engine.requests) == 1


async def test_hard_bound_has_the_form_of_messages_there(house: House) -> None:
    await tell(house, acme=state(spent=True))
    answer = await ask(house, path="messages", max_tokens=8)
    assert (answer.status_code, answer.json()["type"]) == (429, "error")
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert HARD in answer.json()["error"]["message"]
    assert int(answer.headers["retry-after"]) > 3000


async def test_refused_request_is_rejected_is_no_overload_and_costs_no_limit(house: House) -> None:
    await tell(house, acme=state(spent=True))
    await ask(house)
    record = await house.control.record()
    assert (record.outcome, record.status, record.tenant) == (Outcome.REJECTED, 429, "acme")
    assert (record.requested_model, record.engine, record.sent_at) == ("demo:bf16", None, None)
    await house.control.until(lambda: bool(house.control.batches))
    assert not any(house.control.batches[-1].gauges.rejections.values())
    await tell(house)
    assert (await ask(house)).headers["x-ratelimit-remaining-requests"] == "99"


async def test_stranger_stays_a_stranger_and_a_mistake_a_mistake(house: House) -> None:
    await tell(house, acme=state(spent=True))
    assert (await ask(house, "nobody")).status_code == 401
    broken = await house.client.post("/v1/chat/completions", content=b"{", headers={"authorization": "Bearer acme"})
    assert broken.status_code == 400


async def test_official_client_does_not_try_again(house: House) -> None:
    await tell(house, acme=state(spent=True, left=1.0))
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{house.port}/v1", api_key="acme", max_retries=5) as one:
        with pytest.raises(openai.RateLimitError, match="1000 J a day"):
            await one.chat.completions.create(model="demo:bf16", messages=[{"role": "user", "content": "Hi"}])
    await house.control.record(1)
    assert len(house.control.records) == 1


async def test_worker_without_a_control_plane_goes_on_with_the_last_word(house: House) -> None:
    await tell(house, acme=state(spent=True), other=state(spent=False))
    house.control.hang_up()
    await house.control.until(lambda: len(house.control.hellos) == 2)
    assert (await ask(house)).status_code == 429
    assert (await ask(house, "other")).headers[HEADER] == SOFT


async def test_period_that_has_ended_refuses_nobody_even_if_nobody_says_so() -> None:
    clock = FakeClock()
    budgets = TenantBudgets(clock)
    spent = BudgetState(spent=True, reason=HARD, ends_at=clock.monotonic() + 90)
    budgets.replace(Budgets(tenants={"acme": spent, "soft": msgspec.structs.replace(spent, spent=False)}))
    with pytest.raises(BudgetSpentError, match=r"begins anew in 1 min 30 s") as caught:
        budgets.check("acme")
    assert caught.value.retry_after == Seconds(90)
    assert budgets.check("soft") == b"x-wattgate-budget: 1000 J a day\r\n"
    clock.advance(90)
    assert (budgets.check("acme"), budgets.check("soft"), budgets.check("unknown")) == (b"", b"", b"")


@pytest.mark.parametrize(
    ("left", "shown"),
    [
        (0.2, "in 1 s;"),
        (60, "in 1 min;"),
        (3600 * 4 + 60 * 12 + 5, "in 4 h 12 min;"),
        (86_400 * 30, "in 30 d;"),
        (86_400 + 59, "in 1 d;"),
    ],
)
async def test_wait_is_told_in_words(left: float, shown: str) -> None:
    clock = FakeClock()
    budgets = TenantBudgets(clock)
    budgets.replace(Budgets(tenants={"a": BudgetState(spent=True, reason="x", ends_at=clock.monotonic() + left)}))
    with pytest.raises(BudgetSpentError, match=shown):
        budgets.check("a")


async def test_reason_that_no_header_can_hold_is_written_with_question_marks() -> None:
    clock = FakeClock()
    budgets = TenantBudgets(clock)
    odd = BudgetState(spent=False, reason="10 g CO₂", ends_at=Seconds(clock.monotonic() + 1))
    budgets.replace(Budgets(tenants={"a": odd}))
    assert budgets.check("a") == b"x-wattgate-budget: 10 g CO?\r\n"
