"""The trainer of pib-videogen: one job file in, one report and one exit code out."""

import sys

# Where bitsandbytes is installed diffusers imports it, and all of PyTorch's compiler with it, which takes 4 s of every start.
# None makes it look absent (importlib.util.find_spec); what needs it takes the None away first.
sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]
