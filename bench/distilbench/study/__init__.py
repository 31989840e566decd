"""What a study file may say, validated: rows, ablation cells, search spaces, budgets; and the studies that come along.

It must not know how a run is made or where it runs."""
