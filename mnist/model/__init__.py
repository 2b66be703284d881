"""Networks, their averages and schedules, and the graph that trains them."""
