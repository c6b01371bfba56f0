"""A harness for distilling LLM re-rankers into cross-encoders and comparing the choices."""
