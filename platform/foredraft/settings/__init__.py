"""What can be asked for: trainings, machines, evaluations, rules, studies, ladders."""
