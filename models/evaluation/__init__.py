"""What an evaluation asks models: a matcher about sentences on their images, a judge about whole texts."""

from __future__ import annotations
