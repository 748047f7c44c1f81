import { AuditWitness, identityLogoutUrl, Keycloak, OpenFga, Policy } from '@somagent/constructs';
import type { DataProducts } from './data-products.ts';
import { apiServer, reachable, volumes, type Wiring } from './products.ts';

/** Who somebody is, and what they may do. */
export interface IdentityProducts {
  readonly keycloak: Keycloak;
  readonly openfga: OpenFga;
  readonly policy: Policy;
  readonly witness: AuditWitness;
}

export function identityProducts({ charts, plan, args }: Wiring, data: DataProducts): IdentityProducts {
  const { image, size } = args;
  const bootstrapImage = image('bootstrap');
  const keycloak = new Keycloak(charts.keycloak, 'keycloak', {
    image: image('keycloak'),
    bootstrapImage,
    plan,
    database: data.postgres.database('keycloak'),
    hostname: args.identityUrl,
    realm: args.realm,
    logoutUrl: identityLogoutUrl(plan.region),
    ...apiServer(args),
    replicas: size.keycloakReplicas,
    ...reachable(args.identityUrl, args.identityNodePort),
  });
  const openfga = new OpenFga(charts.openfga, 'openfga', {
    image: image('openfga'),
    relationsImage: image('relations'),
    plan,
    database: data.postgres.database('openfga'),
    replicas: size.openfgaReplicas,
  });
  const policy = new Policy(charts.policy, 'policy', { image: image('policy'), plan, store: data.objectStore });
  // Apart from the log: who rules the namespace of one of them can't forge a checkpoint.
  const witness = new AuditWitness(charts['audit-witness'], 'audit-witness', {
    image: image('audit'),
    plan,
    ...volumes(args),
  });
  return { keycloak, openfga, policy, witness };
}
