import type { Construct } from 'constructs';
import { placeOf, platformLabels } from './region-chart.ts';
import { dnsLabel } from './validate.ts';

/** What an object is part of. */
export interface Identity {
  /** The product, such as `postgres`. */
  readonly product: string;
  /** The instance of the product: unique within a namespace. */
  readonly instance: string;
  /** The part of the instance, such as `frontend`. */
  readonly component: string;
}

/** Labels of an object and of its pods. Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/ */
export function objectLabels(scope: Construct, identity: Identity): Record<string, string> {
  return {
    'app.kubernetes.io/name': identity.product,
    ...selectorLabels(identity),
    ...platformLabels(placeOf(scope).region),
  };
}

/** The labels that tell the pods of one component from all others in the namespace; never changed afterwards. */
export function selectorLabels(identity: Identity): Record<string, string> {
  return {
    'app.kubernetes.io/instance': identity.instance,
    'app.kubernetes.io/component': identity.component,
  };
}

/** Name of a product's instance: the construct's id, because that is unique in its scope already. */
export function instanceName(construct: Construct): string {
  return dnsLabel(`id of ${construct.constructor.name}`, construct.node.id);
}
