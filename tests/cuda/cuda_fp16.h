// A stand-in for CUDA's header: the compiler's own half.
#pragma once

using __half = _Float16;
