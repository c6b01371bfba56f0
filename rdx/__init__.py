"""rdx: which choices make a cross-encoder distilled from an LLM re-ranker as good as the LLM?"""
