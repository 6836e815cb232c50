"""The jars of Cosco's plugin for Spark, in the folder `jars`; `cosco.spark.conf` finds them."""
