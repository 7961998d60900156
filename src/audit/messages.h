/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What each kind of message is called in the journal; systemd/vmibus.catalog explains them. */
#ifndef AUDIT_MESSAGES_H
#define AUDIT_MESSAGES_H

#define MESSAGE_COMMAND "c3cd021d95c94cb1a6eda6d38319b9ea"      /* a command that changes or takes something was executed */
#define MESSAGE_REFUSED "4c4976ea40db404f85c1d40dfb36eba1"      /* ... was refused */
#define MESSAGE_HEAD "274559285fc945698eff4629f04c8f6b"         /* the hash that a chain file begins or ends with */
#define MESSAGE_FAILING "ad6de0f3339e40c6bf7a41d4dd1ccbec"      /* records cannot be written */
#define MESSAGE_WORKS "acc4b012377441438d72bbfc4d42a350"        /* they can be again */
#define MESSAGE_RECOVERED "36809630b6474f9f80f9352e7c0f096c"    /* a command that a writer which died had not recorded */
#define MESSAGE_DAMAGED "8ca979b9417a4cbcb206b387854839eb"      /* a chain file that does not verify */

#endif
