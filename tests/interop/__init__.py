"""Real programs, each with and without zerohop: the same results, nothing hangs, and the kernel says what it did."""
