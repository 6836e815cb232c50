"""Spark on Cosco: what a session is to be configured with, from PySpark.

    import cosco.spark

    builder = SparkSession.builder.config(map=cosco.spark.conf("metadata-host:7070"))

The plugin itself is Java, in the distribution `cosco-spark`. docs/spark.md has all options, and
says how to do without Python and what happens when something fails; docs/words.md has the words.
"""

from cosco.spark.session_conf import conf

__all__ = ["conf"]
