/** Runs of records on their way into an exchange: blocks, frames, streams to daemons, commit. */
package cosco.client.write;
