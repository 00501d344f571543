"""Units and array types: the one place where a figure changes its unit."""

from datetime import UTC, datetime
from typing import NewType

import numpy as np
from numpy.typing import NDArray

Int64Array = NDArray[np.int64]
Int32Array = NDArray[np.int32]
Int16Array = NDArray[np.int16]
Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

SiteId = NewType("SiteId", str)
PoolId = NewType("PoolId", str)
TenantId = NewType("TenantId", str)
ContractId = NewType("ContractId", str)

HOUR_S = 3_600
DAY_S = 86_400
WEEK_S = 604_800
GPU_MILLI = 1_000  # one whole GPU, in thousandths

#: A time that never comes; small enough that sums with durations do not overflow int64.
NEVER_S = 1 << 60


def to_epoch_s(moment: datetime) -> int:
    """Whole seconds since 1970-01-01T00:00Z. A time without a zone is refused: every stored time is UTC."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; write UTC, for example {moment.isoformat()}Z")
    return int(moment.timestamp())


def from_epoch_s(epoch_s: int) -> datetime:
    """The UTC moment of an epoch second."""
    return datetime.fromtimestamp(epoch_s, UTC)
