"""What only watches a run: announcements, bars, log lines, trackers, warnings, the card, the push."""

from .announcements import Announcements
from .collapse import CollapseWarnings
from .progress_lines import LogLines, ProgressBar
from .sharing import ModelCard, PushToHub
from .trackers import TrackSamples


__all__ = ["Announcements", "CollapseWarnings", "LogLines", "ModelCard", "ProgressBar", "PushToHub", "TrackSamples"]
