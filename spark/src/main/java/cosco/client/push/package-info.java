/** What a writer says to daemons, and what it does about those that fail it: decisions alone. */
package cosco.client.push;
