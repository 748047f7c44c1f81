import { type TemporalConfig, temporalConnectionOptions } from '@somagent/kit';
import { Client, Connection } from '@temporalio/client';

/** A client of the namespace in which sessions run. Close its `connection` at the end. */
export async function connectClient(config: TemporalConfig & { readonly TEMPORAL_NAMESPACE: string }): Promise<Client> {
  const connection = await Connection.connect(temporalConnectionOptions(config));
  return new Client({ connection, namespace: config.TEMPORAL_NAMESPACE });
}
