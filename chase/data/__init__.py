"""Data sets by name or path, such as `load_data("digits")` or `load_data("my/images")`."""

from chase.data.catalog import DATASETS, data_for, load_data
from chase.data.split import Data, Split, class_balanced, epoch_seed

__all__ = ["DATASETS", "Data", "Split", "class_balanced", "data_for", "epoch_seed", "load_data"]
