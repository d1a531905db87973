"""`python -m grpo_dynamics.cli`."""

import sys

from grpo_dynamics.cli import main

sys.exit(main())
