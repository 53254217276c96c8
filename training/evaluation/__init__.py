"""Evaluation of a trained model: answers to held-out questions, and the field's scores of them."""
