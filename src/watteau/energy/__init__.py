"""Supply by hour, its forecast, and the hourly energy books: integer Wh, where the parts equal the meter."""

from watteau.kernel_cache import use_own_folder

use_own_folder()  # here, where kernels are: who only wants a client of Watteau keeps the environment as it is
