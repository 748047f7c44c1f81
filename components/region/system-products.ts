import { Opa } from '@somagent/constructs';
import { apiServer, type Wiring } from './products.ts';

/** What guards all planes. */
export interface SystemProducts {
  readonly opa: Opa;
}

export function systemProducts({ charts, plan, args }: Wiring): SystemProducts {
  const { image, size, registry } = args;
  const opa = new Opa(charts.opa, 'opa', {
    image: image('opa'),
    bootstrapImage: image('bootstrap'),
    plan,
    registries: [registry],
    replicas: size.opaReplicas,
    ...apiServer(args),
  });
  return { opa };
}
