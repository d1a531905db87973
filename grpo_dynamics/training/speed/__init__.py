"""How fast a step is: its operations counted, what it is measured on, and the plain loop beside it."""
