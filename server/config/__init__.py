"""The configuration: one YAML file, checked whole before anything starts."""

from server.config.load import load_config
from server.config.settings import (
    AdapterLimits,
    AdapterSettings,
    Config,
    ControlSettings,
    EnergySettings,
    EngineOptions,
    EngineSettings,
    EnvironmentSettings,
    GatewaySettings,
    HealthSettings,
    MeterSettings,
    RestartSettings,
    RoutingSettings,
    TelemetrySettings,
    origin,
)

__all__ = [
    "AdapterLimits",
    "AdapterSettings",
    "Config",
    "ControlSettings",
    "EnergySettings",
    "EngineOptions",
    "EngineSettings",
    "EnvironmentSettings",
    "GatewaySettings",
    "HealthSettings",
    "MeterSettings",
    "RestartSettings",
    "RoutingSettings",
    "TelemetrySettings",
    "load_config",
    "origin",
]
