/* Runs inside the namespace: asks the cluster DNS for the API server's Service until the answer is right. */
import { Resolver } from 'node:dns/promises';
import { network } from '../layout.ts';
import { waitFor } from './wait.ts';

const name = `kubernetes.default.svc.${network.clusterDomain}`;
let last = '';

const ask = async (): Promise<boolean> => {
  const resolver = new Resolver({ timeout: 200, tries: 1 });
  resolver.setServers([network.dnsService]);
  return resolver.resolve4(name).then(
    (addresses) => addresses.includes(network.apiService),
    (error: unknown) => {
      last = String(error);
      return false;
    },
  );
};

await waitFor(ask, { what: `${network.dnsService} answers for ${name}`, deadline: 80_000, cause: () => last }).catch(
  (error: Error) => {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  },
);
