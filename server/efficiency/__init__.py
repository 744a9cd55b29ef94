"""Efficiency: the six EfficientLLM metrics, and the honest figures that must stand beside them.

served.py       records → what each configuration has served
use.py          how much of its device an engine uses (host.py: CPU · gpus.py: NVML)
watch.py        one engine's time, added up
history.py      running totals, and the differences of two of them
sampler.py      does all that once a second
facts.py        an engine's model: work, quality;  peaks.py: what its device can do at most
losses.py       what the model loses against its reference, for the exposition
groups.py       what belongs to one row
paper.py        the six;  companions.py, utilization.py, latencies.py: what stands beside them
ranks.py        ranks and the Pareto front
report.py       the table, and the samples for the exposition
cpu_peak.py     measures CPU cores, a program of its own

To add a measure: a function from a group to a figure and a line in the table of its file.
"""

from server.efficiency.facts import EngineFacts, engine_facts
from server.efficiency.gpus import GpuUse
from server.efficiency.host import HostUse
from server.efficiency.peaks import Peaks
from server.efficiency.report import Efficiency, Over, ReportSources
from server.efficiency.sampler import Sampler, SamplerSources
from server.efficiency.use import UseSources

__all__ = [
    "Efficiency",
    "EngineFacts",
    "GpuUse",
    "HostUse",
    "Over",
    "Peaks",
    "ReportSources",
    "Sampler",
    "SamplerSources",
    "UseSources",
    "engine_facts",
]
