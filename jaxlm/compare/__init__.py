"""Which of two runs is better, by how much, with what confidence and on which tokens: python -m jaxlm.compare A B."""
