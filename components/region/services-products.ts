import { Gateway, Orchestrator } from '@somagent/constructs';
import type { DataProducts } from './data-products.ts';
import type { IdentityProducts } from './identity-products.ts';
import { reachable, type Wiring } from './products.ts';
import type { RuntimeProducts } from './runtime-products.ts';

/** Our own services. */
export interface ServicesProducts {
  readonly orchestrator: Orchestrator;
  readonly gateway: Gateway;
}

/** What our services stand on. */
export type Foundation = DataProducts & IdentityProducts & RuntimeProducts;

export function servicesProducts({ charts, plan, args }: Wiring, foundation: Foundation): ServicesProducts {
  const { image, size } = args;
  const { temporal, slm, keycloak, postgres } = foundation;
  const session = { plan, temporal, database: postgres.database('sessions') };
  const orchestrator = new Orchestrator(charts.orchestrator, 'orchestrator', {
    ...session,
    image: image('orchestrator'),
    slm,
    replicas: size.orchestratorReplicas,
  });
  const gateway = new Gateway(charts.gateway, 'gateway', {
    ...session,
    image: image('gateway'),
    identity: keycloak,
    replicas: size.gatewayReplicas,
    ...reachable(args.gatewayUrl, args.gatewayNodePort),
  });
  return { orchestrator, gateway };
}
