"""What the machine does while a kernel computes: a sampler in a child process, a ring file, the steps beside it."""
