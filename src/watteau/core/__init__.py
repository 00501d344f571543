"""THE decision: pure, array-based, compiled. Live and simulation only drive it."""

from watteau.kernel_cache import use_own_folder

use_own_folder()  # here, where kernels are: who only wants a client of Watteau keeps the environment as it is
