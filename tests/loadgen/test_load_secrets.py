"""Keys of the environment stand in the headers of the port that they are for."""

from __future__ import annotations

from loadgen._secrets import control_headers, gateway_headers


def test_each_port_gets_its_own_key_and_none_without_one() -> None:
    environ = {"WATTGATE_ADMIN_KEY": "wg-admin", "WATTGATE_API_KEY": "wg-client"}
    assert control_headers(environ) == {"Authorization": "Bearer wg-admin"}
    assert gateway_headers(environ) == {"Authorization": "Bearer wg-client"}
    assert control_headers({}) == gateway_headers({"WATTGATE_API_KEY": ""}) == {}
