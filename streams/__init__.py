"""What both ends share.

structlog imports rich wherever it is installed, for tracebacks that carry the values of variables and that we never
print: a quarter of what a program's start costs, and 5 MB of its memory. So rich is hidden from that one import.
"""

import sys

if "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog as structlog
    finally:
        del sys.modules["rich"]
