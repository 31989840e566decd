"""Compare text-embedding distillation methods under equal budgets, with stated error."""
