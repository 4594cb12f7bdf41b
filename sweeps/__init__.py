"""Ablation sweeps: files that say what is compared, the plan of their shared trunks, and the search's space."""
