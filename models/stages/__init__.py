"""The stages with their back ends, one module per stage; `clip`, `florence` and `qwen_vl` are model families."""
