"""Many runs, one answer: the plan of a sweep, its execution, the comparison of its arms."""
