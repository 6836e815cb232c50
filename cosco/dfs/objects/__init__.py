"""Stores in buckets of S3, Google Cloud Storage and Azure, and of what speaks their languages.

They need obstore, which `pip install 'cosco[s3]'` installs for all three: only
`cosco.dfs.registry` knows of this folder, and imports it when a URL asks for it.
"""
