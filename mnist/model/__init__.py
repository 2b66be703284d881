"""Networks, weight averages, learning-rate schedules, the training graph, signatures and predictors."""
