"""Read Python and C++ sources without importing or compiling them."""
