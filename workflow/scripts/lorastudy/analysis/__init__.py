"""From records to answers: summary, points, comparisons, claims, cost."""
