"""Stores in HDFS, `hdfs://`, by hdfs-native (the extra `cosco[hdfs]`)."""
