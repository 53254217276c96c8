"""The ablation: what each level of text teaches the same small model."""
