"""What only watches a run: bars, log lines, trackers, warnings, the card, the push."""

from .collapse import CollapseWarnings
from .progress_lines import LogLines, ProgressBar
from .sharing import ModelCard, PushToHub
from .trackers import TrackSamples


__all__ = ["CollapseWarnings", "LogLines", "ModelCard", "ProgressBar", "PushToHub", "TrackSamples"]
