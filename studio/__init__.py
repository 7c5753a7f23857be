"""Acting: verbs, advice, training, serving, reports and the command line. May import `profilers` and `kernels`."""
