"""Guards channels of others: what is accepted, what is kept, what is promised, and what is refuted."""
