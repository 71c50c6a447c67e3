"""The fastest recipe that stays inside an accuracy or a size budget, or the reason why there is none."""
