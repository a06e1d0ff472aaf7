"""Count how often a study's words are wrong, on real trainings that differ in nothing but their seed."""
