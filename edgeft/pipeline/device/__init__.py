"""A device that OpenSSH reaches: its address and name, one job on it, and where a build times and proves its bundle."""
