/* Runs inside the namespace: resolves the URL's name by the cluster DNS and asks until the app answers. */
import { Resolver } from 'node:dns/promises';
import { network } from './layout.ts';
import { waitFor } from './node/wait.ts';

const url = new URL(process.argv[2] ?? '');
const dns = new Resolver({ timeout: 200, tries: 1 });
dns.setServers([network.dnsService]);

const ask = async (): Promise<boolean> => {
  const [address] = await dns.resolve4(url.hostname);
  const answer = await fetch(`http://${address}:${url.port}${url.pathname}`, { signal: AbortSignal.timeout(500) });
  return answer.ok;
};

await waitFor(() => ask().catch(() => false), { what: `${url} answers`, deadline: 110_000 });
