"""Who calls: the tokens that the metadata service takes, and what each stands for."""
