/** A client of the services that knows nothing of Spark: formats, pushing, reading, calls. */
package cosco.client;
